#compdef keyvet-blocklist
autoload -U +X bashcompinit && bashcompinit
# completions of keyvet-blocklist, made by its own table of commands
_keyvet_blocklist() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]} words= flags= files=
	case $prev in
	-out)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return ;;
	-data)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return ;;
	-keys)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return ;;
	-openssl-blacklist)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return ;;
	-spki-sha256)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return ;;
	esac
	if [ "$COMP_CWORD" = 1 ]; then
		mapfile -t COMPREPLY < <(compgen -W "generate build verify inspect version help" -- "$cur")
		return
	fi
	case $command in
	"generate") flags="-origins -out -set -shard" ;;
	"build") flags="-by -cite -classes -data -from -keys -licence -name -openssl-blacklist -out -reason -set -sets -spki-sha256" ;;
	"verify") flags="-all -data -random -sample" files=yes ;;
	"inspect") flags="-json" files=yes ;;
	"version") flags="-json -v" ;;
	help) words="generate build verify inspect version help" ;;
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
complete -o filenames -F _keyvet_blocklist keyvet-blocklist
