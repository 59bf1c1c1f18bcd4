"""How JAX is told to run: compiler options, malloc, calls outside `jit`, caches; and `zoo env`."""
