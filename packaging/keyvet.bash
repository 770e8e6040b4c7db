# bash completion of keyvet(1)
_keyvet() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} flags=
	case $prev in
	-config | -blocklist)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return ;;
	-tpm)
		mapfile -t COMPREPLY < <(compgen -W "/dev/tpmrm0 unix: tcp: spi: i2c:" -- "$cur")
		return ;;
	esac
	if [ "$COMP_CWORD" = 1 ]; then
		mapfile -t COMPREPLY < <(compgen -W "check run status rotate version help" -- "$cur")
		return
	fi
	case ${COMP_WORDS[1]} in
	check) flags="-config -tpm -blocklist -json -v" ;;
	run) flags="-config -once" ;;
	status) flags="-config -json" ;;
	rotate) flags="-config" ;;
	version) flags="-v" ;;
	help)
		mapfile -t COMPREPLY < <(compgen -W "check run status rotate version" -- "$cur")
		return ;;
	esac
	case $cur in
	-*) mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$cur") ;;
	*) [ "${COMP_WORDS[1]}" != check ] || mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
	esac
}
complete -o filenames -F _keyvet keyvet
