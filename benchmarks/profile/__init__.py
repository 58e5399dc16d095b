"""What `benchmarks.gpu` measures, each section a function that returns figures for JSON."""
