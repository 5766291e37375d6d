from solvers.modes import *
