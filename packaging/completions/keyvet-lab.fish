# completions of keyvet-lab, made by its own table of commands
complete -c keyvet-lab -f
complete -c keyvet-lab -n __fish_use_subcommand -a demo -d 'good and bad devices, two rotations and a first contact'
complete -c keyvet-lab -n __fish_use_subcommand -a up -d 'one device, its TPM and an AWS IoT endpoint, until Ctrl-C'
complete -c keyvet-lab -n __fish_use_subcommand -a things -d 'the things, and their certificates'
complete -c keyvet-lab -n __fish_use_subcommand -a job
complete -c keyvet-lab -n '__fish_seen_subcommand_from job' -a create
complete -c keyvet-lab -n '__fish_seen_subcommand_from job' -a list
complete -c keyvet-lab -n '__fish_seen_subcommand_from job' -a cancel
complete -c keyvet-lab -n __fish_use_subcommand -a fault
complete -c keyvet-lab -n '__fish_seen_subcommand_from fault' -a set
complete -c keyvet-lab -n '__fish_seen_subcommand_from fault' -a clear
complete -c keyvet-lab -n '__fish_seen_subcommand_from fault' -a list
complete -c keyvet-lab -n __fish_use_subcommand -a shadow -d 'print a shadow, or update it first'
complete -c keyvet-lab -n __fish_use_subcommand -a report -d 'the newest report of a thing'
complete -c keyvet-lab -n __fish_use_subcommand -a challenge -d 'challenge a thing\'s TPM, and print the answer'
complete -c keyvet-lab -n __fish_use_subcommand -a check -d 'ask for a check, by the shadow'
complete -c keyvet-lab -n __fish_use_subcommand -a version -d 'the version, and with -v what it was built from'
complete -c keyvet-lab -n __fish_use_subcommand -a help
complete -c keyvet-lab -n '__fish_seen_subcommand_from demo' -o keyvet -x -d 'run this PROGRAM (default: keyvet of PATH, or beside this'
complete -c keyvet-lab -n '__fish_seen_subcommand_from up' -o addr -x -d 'listen on HOST:PORT, for a board on the desk (default: on'
complete -c keyvet-lab -n '__fish_seen_subcommand_from up' -o bad -x -a 'roca debian firmware' -d 'a device that fails: KIND is roca (a key in the TPM), debian'
complete -c keyvet-lab -n '__fish_seen_subcommand_from up' -o claim -d 'the device has no certificate, but a claim to provision'
complete -c keyvet-lab -n '__fish_seen_subcommand_from up' -o dir -r -F -d 'keep everything in DIR; up again there is the same device'
complete -c keyvet-lab -n '__fish_seen_subcommand_from up' -o jitr -d 'register unknown certificates of the CA as they first'
complete -c keyvet-lab -n '__fish_seen_subcommand_from up' -o quotas -d 'one CONNECT a second per client id, 100 messages a second'
complete -c keyvet-lab -n '__fish_seen_subcommand_from up' -o thing -x -d 'NAME of the thing (default lab-device)'
complete -c keyvet-lab -n '__fish_seen_subcommand_from things' -o dir -r -F -d 'the DIR of the lab that is up (default: KEYVET_LAB)'
complete -c keyvet-lab -n '__fish_seen_subcommand_from things' -o json -d 'one JSON document on standard output'
complete -c keyvet-lab -n '__fish_seen_subcommand_from job; and __fish_seen_subcommand_from create' -o dir -r -F -d 'the DIR of the lab that is up (default: KEYVET_LAB)'
complete -c keyvet-lab -n '__fish_seen_subcommand_from job; and __fish_seen_subcommand_from create' -o document -r -F -d 'send the document in FILE; "-" is standard input'
complete -c keyvet-lab -n '__fish_seen_subcommand_from job; and __fish_seen_subcommand_from create' -o id -x -d 'ID of the job (default: the time)'
complete -c keyvet-lab -n '__fish_seen_subcommand_from job; and __fish_seen_subcommand_from create' -o operation -x -a 'keyvet.check keyvet.rotate' -d 'NAME of the operation (default keyvet.check)'
complete -c keyvet-lab -n '__fish_seen_subcommand_from job; and __fish_seen_subcommand_from create' -o retries -x -d 'try a failed execution N times again'
complete -c keyvet-lab -n '__fish_seen_subcommand_from job; and __fish_seen_subcommand_from create' -o string -d 'send the document as a string'
complete -c keyvet-lab -n '__fish_seen_subcommand_from job; and __fish_seen_subcommand_from list' -o dir -r -F -d 'the DIR of the lab that is up (default: KEYVET_LAB)'
complete -c keyvet-lab -n '__fish_seen_subcommand_from job; and __fish_seen_subcommand_from list' -o json -d 'one JSON document on standard output'
complete -c keyvet-lab -n '__fish_seen_subcommand_from job; and __fish_seen_subcommand_from cancel' -o dir -r -F -d 'the DIR of the lab that is up (default: KEYVET_LAB)'
complete -c keyvet-lab -n '__fish_seen_subcommand_from job; and __fish_seen_subcommand_from cancel' -o force -d 'also where it is in progress'
complete -c keyvet-lab -n '__fish_seen_subcommand_from fault; and __fish_seen_subcommand_from set' -o dir -r -F -d 'the DIR of the lab that is up (default: KEYVET_LAB)'
complete -c keyvet-lab -n '__fish_seen_subcommand_from fault; and __fish_seen_subcommand_from set' -o times -x -d 'until they have struck N times'
complete -c keyvet-lab -n '__fish_seen_subcommand_from fault; and __fish_seen_subcommand_from clear' -o dir -r -F -d 'the DIR of the lab that is up (default: KEYVET_LAB)'
complete -c keyvet-lab -n '__fish_seen_subcommand_from fault; and __fish_seen_subcommand_from list' -o dir -r -F -d 'the DIR of the lab that is up (default: KEYVET_LAB)'
complete -c keyvet-lab -n '__fish_seen_subcommand_from fault; and __fish_seen_subcommand_from list' -o json -d 'one JSON document on standard output'
complete -c keyvet-lab -n '__fish_seen_subcommand_from shadow' -o dir -r -F -d 'the DIR of the lab that is up (default: KEYVET_LAB)'
complete -c keyvet-lab -n '__fish_seen_subcommand_from shadow' -o name -x -d 'NAME of the shadow (default keyvet)'
complete -c keyvet-lab -n '__fish_seen_subcommand_from shadow' -o update -x -d 'update it with this JSON first'
complete -c keyvet-lab -n '__fish_seen_subcommand_from report' -o dir -r -F -d 'the DIR of the lab that is up (default: KEYVET_LAB)'
complete -c keyvet-lab -n '__fish_seen_subcommand_from report' -o out -r -F -d 'write it to FILE instead of standard output'
complete -c keyvet-lab -n '__fish_seen_subcommand_from challenge' -F
complete -c keyvet-lab -n '__fish_seen_subcommand_from challenge' -o dir -r -F -d 'the DIR of the lab that is up (default: KEYVET_LAB)'
complete -c keyvet-lab -n '__fish_seen_subcommand_from challenge' -o out -r -F -d 'write it to FILE instead of standard output'
complete -c keyvet-lab -n '__fish_seen_subcommand_from check' -o dir -r -F -d 'the DIR of the lab that is up (default: KEYVET_LAB)'
complete -c keyvet-lab -n '__fish_seen_subcommand_from version' -o json -d 'one JSON document on standard output'
complete -c keyvet-lab -n '__fish_seen_subcommand_from version' -o v -d 'also show what it was built from'
