#compdef keyvet-lab
autoload -U +X bashcompinit && bashcompinit
# completions of keyvet-lab, made by its own table of commands
_keyvet_lab() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]} words= flags= files=
	case $prev in
	-bad)
		mapfile -t COMPREPLY < <(compgen -W "roca debian firmware" -- "$cur")
		return ;;
	-dir)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return ;;
	-document)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return ;;
	-operation)
		mapfile -t COMPREPLY < <(compgen -W "keyvet.check keyvet.rotate" -- "$cur")
		return ;;
	-out)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return ;;
	esac
	if [ "$COMP_CWORD" = 1 ]; then
		mapfile -t COMPREPLY < <(compgen -W "demo up things job fault shadow report challenge check version help" -- "$cur")
		return
	fi
	if [ "$command" = job ]; then
		if [ "$COMP_CWORD" = 2 ]; then
			mapfile -t COMPREPLY < <(compgen -W "create list cancel" -- "$cur")
			return
		fi
		command="job ${COMP_WORDS[2]}"
	fi
	if [ "$command" = fault ]; then
		if [ "$COMP_CWORD" = 2 ]; then
			mapfile -t COMPREPLY < <(compgen -W "set clear list" -- "$cur")
			return
		fi
		command="fault ${COMP_WORDS[2]}"
	fi
	case $command in
	"demo") flags="-keyvet" ;;
	"up") flags="-addr -bad -claim -dir -jitr -quotas -thing" ;;
	"things") flags="-dir -json" ;;
	"job create") flags="-dir -document -id -operation -retries -string" ;;
	"job list") flags="-dir -json" ;;
	"job cancel") flags="-dir -force" ;;
	"fault set") flags="-dir -times" ;;
	"fault clear") flags="-dir" ;;
	"fault list") flags="-dir -json" ;;
	"shadow") flags="-dir -name -update" ;;
	"report") flags="-dir -out" ;;
	"challenge") flags="-dir -out" files=yes ;;
	"check") flags="-dir" ;;
	"version") flags="-json -v" ;;
	help) words="demo up things job fault shadow report challenge check version help" ;;
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
complete -o filenames -F _keyvet_lab keyvet-lab
