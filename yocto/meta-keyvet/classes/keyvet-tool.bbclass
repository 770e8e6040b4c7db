# keyvet-image of keyvet-native: the rules of keyvet, in the build.

def keyvet_image(d, env, *args):
    """Run keyvet-image, and end the task if it finds something wrong."""
    import subprocess

    tool = d.expand('${STAGING_BINDIR_NATIVE}/keyvet-image')
    env = dict(env, KEYVET_MACHINE=d.getVar('MACHINE') or '')
    result = subprocess.run([tool, *args], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in result.stdout.splitlines():
        kind, _, text = line.partition(': ')
        if kind == 'warning':
            bb.warn('keyvet: ' + text)
        else:
            bb.error('keyvet: ' + (text if kind == 'error' else line))
    if result.returncode:
        bb.fatal('keyvet could not work with this: see the errors above')
