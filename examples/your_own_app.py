"""The sweeper in a Hydra app that trains a support vector machine on scikit-learn's digits:

python your_own_app.py -m hydra/sweeper=optuna_study hydra/sweeper/pruner=median hydra.sweeper.n_trials=12
python your_own_app.py --config-dir svm +experiment=best
"""

from dataclasses import dataclass

import hydra
import numpy as np
from hydra.core.config_store import ConfigStore
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import SVC

from reg_sweep.search import current_trial, pruned_error


@dataclass
class Settings:
    """The machine's regularization (small C: strong) and the inverse width of its kernel."""

    C: float = 1.0
    gamma: float = 0.001


ConfigStore.instance().store(name="settings", node=Settings)
SPACE = {"C": "tag(log, interval(0.01, 100))", "gamma": "tag(log, interval(1e-5, 0.1))"}
HYDRA = {"sweep": {"dir": "svm"}, "sweeper": {"params": SPACE}}
ConfigStore.instance().store(name="app", node={"defaults": ["settings", "_self_"], "hydra": HYDRA})


@hydra.main(version_base="1.3", config_path=None, config_name="app")
def main(settings: Settings) -> float:
    """Error rate in five-fold cross-validation."""
    x, y = load_digits(return_X_y=True)
    errors = []
    trial = current_trial()  # None outside a study
    for fold, (train, test) in enumerate(StratifiedKFold(5, shuffle=True, random_state=0).split(x, y)):
        machine = SVC(C=settings.C, gamma=settings.gamma).fit(x[train], y[train])
        errors.append(1 - machine.score(x[test], y[test]))
        if trial is not None:
            trial.report(float(np.mean(errors)), fold)
            if trial.should_prune():
                raise pruned_error(f"no better than others after {fold + 1} folds")
    print(f"C={settings.C:g} gamma={settings.gamma:g}: error {np.mean(errors):.2%}")
    return float(np.mean(errors))


if __name__ == "__main__":
    main()
