# completions of keyvet, made by its own table of commands
_keyvet() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]} words= flags= files=
	case $prev in
	-accept)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return ;;
	-blocklist)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return ;;
	-config)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return ;;
	-fail-on)
		mapfile -t COMPREPLY < <(compgen -W "low medium high critical" -- "$cur")
		return ;;
	-format)
		mapfile -t COMPREPLY < <(compgen -W "table line json sarif junit" -- "$cur")
		return ;;
	-tpm)
		mapfile -t COMPREPLY < <(compgen -W "/dev/tpmrm0 unix: tcp: spi: i2c:" -- "$cur")
		return ;;
	-out)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return ;;
	esac
	if [ "$COMP_CWORD" = 1 ]; then
		mapfile -t COMPREPLY < <(compgen -W "check run status rotate wait debug version help" -- "$cur")
		return
	fi
	if [ "$command" = debug ]; then
		if [ "$COMP_CWORD" = 2 ]; then
			mapfile -t COMPREPLY < <(compgen -W "bundle" -- "$cur")
			return
		fi
		command="debug ${COMP_WORDS[2]}"
	fi
	case $command in
	"check") flags="-accept -blocklist -config -fail-on -format -json -only -thorough -tpm -v" files=yes ;;
	"run") flags="-config -once" ;;
	"status") flags="-config -json -q" ;;
	"rotate") flags="-config" ;;
	"wait") flags="-config -timeout" ;;
	"debug bundle") flags="-config -out" ;;
	"version") flags="-json -v" ;;
	help) words="check run status rotate wait debug version help" ;;
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
complete -o filenames -F _keyvet keyvet
