from solvers.checks import *
