"""Pictures and pages for people: error maps, a cohort's page, the emphasis that TAMW puts on PET and CT."""
