from .encoding import Word as Word
from .explaining import explain as explain
from .explanation import TextExplanation as TextExplanation, TextExplanations as TextExplanations
