"""Many runs under Ray, the one package that knows it: cluster, trials, search, display, remote storage."""
