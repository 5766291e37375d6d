from solvers import *
from solvers import checks as checks
