"""The groups of commands, one file each: `route`, `number`, `trunk`, `instance`; with what they share below them."""
