"""Any prompts of a study."""
