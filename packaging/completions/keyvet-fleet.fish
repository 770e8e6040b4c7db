# completions of keyvet-fleet, made by its own table of commands
complete -c keyvet-fleet -f
complete -c keyvet-fleet -n __fish_use_subcommand -a verify -d 'verify reports, and the evidence in them'
complete -c keyvet-fleet -n __fish_use_subcommand -a challenge -d 'make a challenge to the TPM that signed a report'
complete -c keyvet-fleet -n __fish_use_subcommand -a answer -d 'verify a report with the device\'s answer to a challenge'
complete -c keyvet-fleet -n __fish_use_subcommand -a export -d 'write what Google\'s gotpm verifies'
complete -c keyvet-fleet -n __fish_use_subcommand -a version -d 'the version, and with -v what it was built from'
complete -c keyvet-fleet -n __fish_use_subcommand -a help
complete -c keyvet-fleet -n '__fish_seen_subcommand_from verify' -F
complete -c keyvet-fleet -n '__fish_seen_subcommand_from verify' -o accept -r -F -d 'count the findings that F names as warnings (keyvet.toml(5),'
complete -c keyvet-fleet -n '__fish_seen_subcommand_from verify' -o advisories -r -F -d 'hold the firmware against the advisories in F, too'
complete -c keyvet-fleet -n '__fish_seen_subcommand_from verify' -o ak-name -x -d 'the attestation key must be the one of this name in HEX,'
complete -c keyvet-fleet -n '__fish_seen_subcommand_from verify' -o baseline -r -F -d 'keep in FILE what is first seen of a device\'s boot; a later'
complete -c keyvet-fleet -n '__fish_seen_subcommand_from verify' -o blocklist -r -F -d 'look the keys up in the list F, too; repeatable'
complete -c keyvet-fleet -n '__fish_seen_subcommand_from verify' -o csv -d 'a table in CSV on standard output, one line a report'
complete -c keyvet-fleet -n '__fish_seen_subcommand_from verify' -o ek-roots -r -F -d 'the EK certificate must lead to a certificate in DIR, of its'
complete -c keyvet-fleet -n '__fish_seen_subcommand_from verify' -o json -d 'one JSON document on standard output'
complete -c keyvet-fleet -n '__fish_seen_subcommand_from verify' -o max-age -x -d 'the report must not be older than D, such as 25h'
complete -c keyvet-fleet -n '__fish_seen_subcommand_from verify' -o nonce -x -d 'the report must carry this nonce in HEX, which you gave the'
complete -c keyvet-fleet -n '__fish_seen_subcommand_from verify' -o policy -r -F -d 'the boot must be one that F allows, a Policy of go-tpm-tools'
complete -c keyvet-fleet -n '__fish_seen_subcommand_from verify' -o renew -d 'with -baseline: keep what these reports show from now on'
complete -c keyvet-fleet -n '__fish_seen_subcommand_from verify' -o require -x -d 'these LEVELS, separated by commas, must pass: what they do'
complete -c keyvet-fleet -n '__fish_seen_subcommand_from challenge' -F
complete -c keyvet-fleet -n '__fish_seen_subcommand_from challenge' -o advisories -r -F -d 'hold the firmware against the advisories in F, too'
complete -c keyvet-fleet -n '__fish_seen_subcommand_from challenge' -o blocklist -r -F -d 'look the keys up in the list F, too; repeatable'
complete -c keyvet-fleet -n '__fish_seen_subcommand_from challenge' -o ek-roots -r -F -d 'the EK certificate must lead to a certificate in DIR, of its'
complete -c keyvet-fleet -n '__fish_seen_subcommand_from challenge' -o keep -r -F -d 'keep the secret in FILE, which must not be there yet'
complete -c keyvet-fleet -n '__fish_seen_subcommand_from answer' -F
complete -c keyvet-fleet -n '__fish_seen_subcommand_from answer' -o accept -r -F -d 'count the findings that F names as warnings (keyvet.toml(5),'
complete -c keyvet-fleet -n '__fish_seen_subcommand_from answer' -o advisories -r -F -d 'hold the firmware against the advisories in F, too'
complete -c keyvet-fleet -n '__fish_seen_subcommand_from answer' -o blocklist -r -F -d 'look the keys up in the list F, too; repeatable'
complete -c keyvet-fleet -n '__fish_seen_subcommand_from answer' -o ek-roots -r -F -d 'the EK certificate must lead to a certificate in DIR, of its'
complete -c keyvet-fleet -n '__fish_seen_subcommand_from answer' -o json -d 'one JSON document on standard output'
complete -c keyvet-fleet -n '__fish_seen_subcommand_from answer' -o kept -r -F -d 'the FILE that "challenge" wrote'
complete -c keyvet-fleet -n '__fish_seen_subcommand_from export' -F
complete -c keyvet-fleet -n '__fish_seen_subcommand_from export' -o format -x -d 'FORMAT of the message: binarypb (the default) or textproto'
complete -c keyvet-fleet -n '__fish_seen_subcommand_from export' -o out -r -F -d 'write it to FILE instead of standard output'
complete -c keyvet-fleet -n '__fish_seen_subcommand_from version' -o json -d 'one JSON document on standard output'
complete -c keyvet-fleet -n '__fish_seen_subcommand_from version' -o v -d 'also show what it was built from'
