"""The HTML pages: report and audit."""
