"""Dashboards and alerts for the gateway's metrics; see "Dashboards and alerts" in README.md."""
