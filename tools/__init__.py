"""Programs for the checkout: real servers for the tests, and the run of the tests themselves."""
