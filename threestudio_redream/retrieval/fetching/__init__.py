"""Assets over the network: one request, one checked file, a plan, and views of what a query wants."""
