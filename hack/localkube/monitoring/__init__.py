"""Monitoring: the table of alerts, and what is made from it and from the registry: rules, runbooks, unit tests, the dashboard, pages."""
