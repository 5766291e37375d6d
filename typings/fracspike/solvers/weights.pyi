from solvers.weights import *
