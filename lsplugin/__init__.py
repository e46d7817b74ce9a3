"""A plugin for Label Studio templates: configs, projects, annotations, preference pairs. See `lsplugin --help`."""
