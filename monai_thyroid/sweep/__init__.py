"""Many runs: planned, executed here or on a cluster, watched."""
