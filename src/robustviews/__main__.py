"""`python -m robustviews`."""

from robustviews.cli import main

raise SystemExit(main())
