"""Search: walk the declared space, place, certify."""
