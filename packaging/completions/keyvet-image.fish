# completions of keyvet-image, made by its own table of commands
complete -c keyvet-image -f
complete -c keyvet-image -n __fish_use_subcommand -a write -d 'write keyvet\'s configuration into an image'
complete -c keyvet-image -n __fish_use_subcommand -a check -d 'refuse an image on which keyvet could not work'
complete -c keyvet-image -n __fish_use_subcommand -a version -d 'the version, and with -v what it was built from'
complete -c keyvet-image -n __fish_use_subcommand -a help
complete -c keyvet-image -n '__fish_seen_subcommand_from write' -F
complete -c keyvet-image -n '__fish_seen_subcommand_from check' -F
complete -c keyvet-image -n '__fish_seen_subcommand_from check' -o read-only -d 'the root file system is mounted read-only'
complete -c keyvet-image -n '__fish_seen_subcommand_from version' -o json -d 'one JSON document on standard output'
complete -c keyvet-image -n '__fish_seen_subcommand_from version' -o v -d 'also show what it was built from'
