"""Reading a log: verifying it under a policy, proving records of it, looking into it."""
