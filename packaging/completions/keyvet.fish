# completions of keyvet, made by its own table of commands
complete -c keyvet -f
complete -c keyvet -n __fish_use_subcommand -a check -d 'test keys here and now; changes nothing, needs no network'
complete -c keyvet -n __fish_use_subcommand -a run -d 'the service: check, report, open the gate, wait for jobs'
complete -c keyvet -n __fish_use_subcommand -a status -d 'the last verdict, the gate, the credential, what waits'
complete -c keyvet -n __fish_use_subcommand -a rotate -d 'a new key and certificate for the device'
complete -c keyvet -n __fish_use_subcommand -a wait -d 'block until the gate is open'
complete -c keyvet -n __fish_use_subcommand -a debug
complete -c keyvet -n '__fish_seen_subcommand_from debug' -a bundle
complete -c keyvet -n __fish_use_subcommand -a version -d 'the version, and with -v what it was built from'
complete -c keyvet -n __fish_use_subcommand -a help
complete -c keyvet -n '__fish_seen_subcommand_from check' -F
complete -c keyvet -n '__fish_seen_subcommand_from check' -o accept -r -F -d 'count the findings that F names as warnings, besides those'
complete -c keyvet -n '__fish_seen_subcommand_from check' -o blocklist -r -F -d 'look keys up in the list F, too; repeatable'
complete -c keyvet -n '__fish_seen_subcommand_from check' -o config -r -F -d 'configuration F (default /etc/keyvet/keyvet.toml and its'
complete -c keyvet -n '__fish_seen_subcommand_from check' -o fail-on -x -a 'low medium high critical' -d 'a finding below this SEVERITY (low, medium, high, critical)'
complete -c keyvet -n '__fish_seen_subcommand_from check' -o format -x -a 'table line json sarif junit' -d 'FORM of the output: table, line, json, sarif, junit'
complete -c keyvet -n '__fish_seen_subcommand_from check' -o json -d 'the same as -format json'
complete -c keyvet -n '__fish_seen_subcommand_from check' -o only -x -d 'ask only these checks: ID,...'
complete -c keyvet -n '__fish_seen_subcommand_from check' -o thorough -d 'search Debian\'s generator for keys that no list covers:'
complete -c keyvet -n '__fish_seen_subcommand_from check' -o tpm -x -a '/dev/tpmrm0 unix: tcp: spi: i2c:' -d 'ADDR of the TPM: /dev/tpmrm0, unix:PATH or tcp:HOST:PORT'
complete -c keyvet -n '__fish_seen_subcommand_from check' -o v -d 'also show what passed'
complete -c keyvet -n '__fish_seen_subcommand_from run' -o config -r -F -d 'configuration F (default /etc/keyvet/keyvet.toml and its'
complete -c keyvet -n '__fish_seen_subcommand_from run' -o once -d 'end when the gate is decided'
complete -c keyvet -n '__fish_seen_subcommand_from status' -o config -r -F -d 'configuration F (default /etc/keyvet/keyvet.toml and its'
complete -c keyvet -n '__fish_seen_subcommand_from status' -o json -d 'one JSON document on standard output'
complete -c keyvet -n '__fish_seen_subcommand_from status' -o q -d 'show nothing: the exit status is that of the last verdict'
complete -c keyvet -n '__fish_seen_subcommand_from rotate' -o config -r -F -d 'configuration F (default /etc/keyvet/keyvet.toml and its'
complete -c keyvet -n '__fish_seen_subcommand_from wait' -o config -r -F -d 'configuration F (default /etc/keyvet/keyvet.toml and its'
complete -c keyvet -n '__fish_seen_subcommand_from wait' -o timeout -x -d 'wait for this DURATION at most, such as 90s; 0 is without'
complete -c keyvet -n '__fish_seen_subcommand_from debug; and __fish_seen_subcommand_from bundle' -o config -r -F -d 'configuration F (default /etc/keyvet/keyvet.toml and its'
complete -c keyvet -n '__fish_seen_subcommand_from debug; and __fish_seen_subcommand_from bundle' -o out -r -F -d 'write it to FILE (default: keyvet-bundle-TIME.txt), "-" is'
complete -c keyvet -n '__fish_seen_subcommand_from version' -o json -d 'one JSON document on standard output'
complete -c keyvet -n '__fish_seen_subcommand_from version' -o v -d 'also show what it was built from'
