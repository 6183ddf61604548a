"""May we take an upgrade? Run the suites on two stacks and compare their records; or find where a failure began."""
