"""The sections of the report's page: a comparison in, pictures and texts out."""
