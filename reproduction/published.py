"""Exercise B's published results: maximum test accuracy over the epochs, in percent, one run each."""

# Maxima by (l1, l2), each with its epoch, counted from 0. The arm without a penalty was run twice.
PAIRS = {
    (0, 0): "99.47 (25); again 99.47 (38)",
    (0.001, 0): "99.45 (28)",
    (0, 0.0005): "99.47 (19)",
    (0.001, 0.0005): "99.30 (12)",
    (0.0005, 0): "99.43 (39)",
    (0, 0.0001): "99.43 (27)",
    (0.0005, 0.0001): "99.42 (33)",
}
L1 = {(0.0005, 0): "99.46", (0.005, 0): "99.43", (0.0001, 0): "99.46", (0.001, 0): "99.44"}
L2 = {(0, 0.0005): "99.36", (0, 0.005): "98.73", (0, 0.0001): "99.44", (0, 0.001): "99.30"}
