"""The ground floor: configs, files, records, runs, errors and progress. Knows nothing of models and never imports torch."""
