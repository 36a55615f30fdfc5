"""Reporting: from records to the results frame, statistics, tables and figures."""
