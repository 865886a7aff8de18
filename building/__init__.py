"""How the distributions are built: the hooks that pip and `build` call, and the modules that mypyc compiles."""
