"""`python -m lsplugin.validation` makes vocabulary.json anew from the label-studio of this environment."""

from lsplugin.validation.vocabulary import main

main()
