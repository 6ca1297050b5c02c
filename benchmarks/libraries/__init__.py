"""How much of other libraries' attention `pellucid.watch` sees: small models beside the truth."""
