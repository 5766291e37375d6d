from solvers import *
from solvers import checks as checks
from solvers import modes as modes
