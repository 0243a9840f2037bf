from .explaining import explain as explain
from .explanation import TableExplanation as TableExplanation
from .rows import Rows as Rows
