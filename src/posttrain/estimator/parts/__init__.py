"""The parts that estimators are made of: pure functions on a detached `View`, each citing the equation it implements."""
