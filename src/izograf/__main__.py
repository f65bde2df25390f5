"""`python -m izograf`."""

from izograf.cli.main import main

main()
