# completions of keyvet-fleet, made by its own table of commands
_keyvet_fleet() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]} words= flags= files=
	case $prev in
	-accept)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return ;;
	-advisories)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return ;;
	-baseline)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return ;;
	-blocklist)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return ;;
	-ek-roots)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return ;;
	-policy)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return ;;
	-keep)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return ;;
	-kept)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return ;;
	-out)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return ;;
	esac
	if [ "$COMP_CWORD" = 1 ]; then
		mapfile -t COMPREPLY < <(compgen -W "verify challenge answer export version help" -- "$cur")
		return
	fi
	case $command in
	"verify") flags="-accept -advisories -ak-name -baseline -blocklist -csv -ek-roots -json -max-age -nonce -policy -renew -require" files=yes ;;
	"challenge") flags="-advisories -blocklist -ek-roots -keep" files=yes ;;
	"answer") flags="-accept -advisories -blocklist -ek-roots -json -kept" files=yes ;;
	"export") flags="-format -out" files=yes ;;
	"version") flags="-json -v" ;;
	help) words="verify challenge answer export version help" ;;
	esac
	case $cur in
	-*) mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$cur") ;;
	*)
		if [ -n "$words" ]; then
			mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
		elif [ -n "$files" ]; then
			mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		fi ;;
	esac
}
complete -o filenames -F _keyvet_fleet keyvet-fleet
