# completions of keyvet-blocklist, made by its own table of commands
complete -c keyvet-blocklist -f
complete -c keyvet-blocklist -n __fish_use_subcommand -a generate -d 'make the keys of a set, 32,768 for each origin'
complete -c keyvet-blocklist -n __fish_use_subcommand -a build -d 'make a list'
complete -c keyvet-blocklist -n __fish_use_subcommand -a verify -d 'check structure and digest of a list, and that keys are found'
complete -c keyvet-blocklist -n __fish_use_subcommand -a inspect -d 'show what a list covers'
complete -c keyvet-blocklist -n __fish_use_subcommand -a version -d 'the version, and with -v what it was built of'
complete -c keyvet-blocklist -n __fish_use_subcommand -a help
complete -c keyvet-blocklist -n '__fish_seen_subcommand_from generate' -o origins -x -d 'only these ORIGINS, as le32-rnd: an architecture (le32,'
complete -c keyvet-blocklist -n '__fish_seen_subcommand_from generate' -o out -r -F -d 'write into DIR'
complete -c keyvet-blocklist -n '__fish_seen_subcommand_from generate' -o set -x -d 'the set NAME'
complete -c keyvet-blocklist -n '__fish_seen_subcommand_from build' -o cite -x -d 'where people find out more of the list: a URL, which the'
complete -c keyvet-blocklist -n '__fish_seen_subcommand_from build' -o data -r -F -d 'fingerprints in DIR, as generate writes them; every key is'
complete -c keyvet-blocklist -n '__fish_seen_subcommand_from build' -o name -x -d 'what the findings call the list, as TEXT (default'
complete -c keyvet-blocklist -n '__fish_seen_subcommand_from build' -o openssl-blacklist -r -F -d 'a FILE of Debian\'s package openssl-blacklist'
complete -c keyvet-blocklist -n '__fish_seen_subcommand_from build' -o out -r -F -d 'write the list to FILE'
complete -c keyvet-blocklist -n '__fish_seen_subcommand_from build' -o reason -x -d 'reason CODE of the finding (default KEYVET_COMPROMISED_KEY)'
complete -c keyvet-blocklist -n '__fish_seen_subcommand_from build' -o sets -x -d 'the sets that go in, NAME,... (default'
complete -c keyvet-blocklist -n '__fish_seen_subcommand_from build' -o spki-sha256 -r -F -d 'keys that you know to be compromised, in FILE: SHA-256 in'
complete -c keyvet-blocklist -n '__fish_seen_subcommand_from verify' -F
complete -c keyvet-blocklist -n '__fish_seen_subcommand_from verify' -o all -d 'make all weak keys of each set from their seeds and look'
complete -c keyvet-blocklist -n '__fish_seen_subcommand_from verify' -o data -r -F -d 'look up every key of DIR that belongs to the list\'s sets'
complete -c keyvet-blocklist -n '__fish_seen_subcommand_from verify' -o random -x -d 'look up N random keys for each set: none may be found'
complete -c keyvet-blocklist -n '__fish_seen_subcommand_from verify' -o sample -x -d 'make N random weak keys of each set from their seeds and'
complete -c keyvet-blocklist -n '__fish_seen_subcommand_from inspect' -F
complete -c keyvet-blocklist -n '__fish_seen_subcommand_from inspect' -o json -d 'one JSON document on standard output'
complete -c keyvet-blocklist -n '__fish_seen_subcommand_from version' -o json -d 'one JSON document on standard output'
complete -c keyvet-blocklist -n '__fish_seen_subcommand_from version' -o v -d 'show also what it was built of'
