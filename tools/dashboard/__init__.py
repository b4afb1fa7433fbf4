"""The Grafana dashboard as code; `python -m tools.dashboard` writes monitoring/dashboard.json."""
