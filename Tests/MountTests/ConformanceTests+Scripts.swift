extension ConformanceCase {
    /// Who may do what, what becomes of modes and owners, and what programs see.
    static let scripts: [ConformanceCase] = [
        ConformanceCase(
            "Changing content takes setuid, setgid and capabilities away from all but the privileged",
            script: """
                for mode in 4777 2777 6777 2767 4767; do
                for how in 'echo x >>f' 'echo x >f' 'echo x 1<>f' 'truncate -s 10 f' 'fallocate -l 9000 f' 'chmod 6777 f'; do
                for who in user root; do for reader in /dev/null f; do
                    echo content >f; chmod $mode f; exec 9<$reader
                    if [ $who = user ]; then as 1 "$how"; else bash -c "$how"; fi
                    echo "$mode $how $who $reader: $(stat -c %a f)"; exec 9<&-
                done; done; done; done
                for how in 'echo x >>f' 'truncate -s 1 f' 'echo x >f'; do
                    touch f; chmod 777 f; setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 f
                    as 1 "$how"; getfattr -m- -d -e hex f 2>&1
                done
                """),
        ConformanceCase(
            "Setgid without group execution outlives changes by members of the file's group, supplementary ones too",
            script: """
                for how in 'echo x >>f' 'echo x >f' 'truncate -s 9 f' 'fallocate -l 9 f' 'chgrp 65534 f'; do for groups in 1 100 7,100; do
                    echo content >f; chown 65534:100 f; chmod 6766 f; as $groups "$how"; show f
                done; done
                """),
        ConformanceCase(
            "Capabilities decide, whoever has them",
            script: """
                with() { setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=+$1 --ambient-caps=+$1 bash -c "$2" 2>&1; }
                without() { setpriv --bounding-set=-$1 bash -c "$2" 2>&1; }
                touch f; chmod 666 f; setfattr -n trusted.a -v 1 f; mkdir -m 777 d; echo x >d/f
                for look in 'getfattr -d -m- f' 'setfattr -n trusted.b -v 1 f' 'chattr +i f; chattr -i f'; do for capability in sys_admin linux_immutable; do
                    with $capability "$look"; without $capability "$look"; done; done
                for capability in fsetid chown; do for mode in 6777 6766; do for how in 'echo x >>f' 'chown 65534 f'; do
                    chown 65534:100 f; chmod $mode f; with $capability "$how"; show f; chmod $mode f; without $capability "$how"; show f
                done; done; done
                with mknod "perl -e 'my (\\$a, \\$b) = (q(d/f), q(d/g)); print syscall(316, -100, \\$a, -100, \\$b, 4)'"; show d/*; stat -c %t:%T d/f
                """),
        ConformanceCase(
            "chown takes setuid and setgid away, and no change of owner still changes the change time",
            script: """
                for mode in 4777 2777 6777 2767; do for kind in file directory; do
                    rm -rf f; if [ $kind = file ]; then touch f; else mkdir f; fi
                    chmod $mode f; before=$(stat -c %z f); sleep 0.02; chown : f; show f
                    perl -e 'chown -1, -1, "f" or print "$!\n"'; show f
                    [ "$before" = "$(stat -c %z f)" ] || echo changed
                    chmod $mode f; chown 5:5 f; show f; chown 65534:65534 f; chmod $mode f
                    as 100 'chgrp 100 f'; show f; as 100 "chmod $mode f"; show f; as 1 "chmod $mode f"; show f
                    as 1 'chown 1 f'; as 1 'chgrp 7 f'
                done; done
                """),
        ConformanceCase(
            "A setgid directory gives its group to what is made in it",
            script: """
                mkdir d; chown 0:100 d; chmod 2777 d
                make='umask 0; cd d; mkdir $0d; mkfifo -m 6666 $0p; ln -s x $0l; touch $0f; mkdir -m 2700 $0e; show() { :; }'
                as 1 "${make//\\$0/a}"; as 100 "${make//\\$0/b}"; mkdir d/root; touch d/rootfile; show d/*
                """),
        ConformanceCase(
            "The umask and default ACLs decide about the modes of new names",
            script: """
                mkdir acl; setfacl -d -m u:1000:rwx,g:100:r-x,m::rwx,o::--- acl
                for mask in 0 022 077 777; do for d in . acl; do
                    (umask $mask; touch $d/f$mask; mkdir $d/d$mask; mkfifo $d/p$mask; ln -s x $d/l$mask)
                    show $d/[fdpl]$mask; getfacl -cn $d/[fdp]$mask
                done; done
                """),
        ConformanceCase(
            "POSIX ACLs grant and refuse, and setting one without being of the group takes setgid away",
            script: """
                touch a; chmod 600 a; setfacl -m u:65534:rw a; show a; as 1 'cat a; echo x >>a'; chmod 644 a; getfacl -cn a
                as 1 'echo x >>a'; setfacl -b a; as 1 'echo x >>a; setfacl -m u:1:rw a'
                touch s; chown 65534:100 s
                for groups in 1 100; do chmod 2755 s; as $groups 'setfacl -m u:1:rw s'; show s; done
                chmod 4755 s; as 1 'setfacl -m u::rwx,g::r-x,o::- s'; show s; setfacl -d -m u:1:rw a 2>&1
                """),
        ConformanceCase(
            "Extended attributes of every name space",
            script: """
                touch f; mkdir d; ln -s f l; mkfifo p; mkdir -m 1777 sticky
                for name in user.a trusted.a security.a system.a nonsense user. passhsm.x; do for file in f d l p; do
                    setfattr -h -n $name -v value $file 2>&1; getfattr -h -n $name --only-values $file 2>&1; echo
                done; as 1 "setfattr -n $name -v v f; getfattr -n $name f; setfattr -n $name -v v sticky"; done
                getfattr -d -m- f; as 1 'getfattr -d -m- f'; setfattr -x user.none f 2>&1; setfattr -x user.a f; getfattr -d -m- f
                """),
        ConformanceCase(
            "Inode flags are set, shown and obeyed",
            script: """
                touch f; echo text >f; mkdir d; mkfifo p
                attempt() { "$@" 2>&1; echo "$? $*"; }
                look() { lsattr -d f d p 2>&1 | sed 's/-*e-* / /'; lsattr -dp f d 2>&1 | cut -c1-6; }
                try() {
                    for command in 'echo x >f' 'echo x >>f' 'echo x 1<>f' 'cat f' 'truncate -s 0 f' 'chmod 600 f' \\
                        'touch -d @1 f' 'touch f' 'ln f g' 'mv f g' 'rm f' 'chown 1 f' 'setfattr -n user.a -v 1 f'; do
                        attempt bash -c "$command"
                    done
                }
                look; attempt chattr +dA f; attempt chattr +Dd d; look; attempt chattr -A f; look
                chattr +a f; try; chattr -a f; chattr +i f; try; chattr -i f; look
                chattr +i d; attempt touch d/x; attempt mkdir d/y; attempt rmdir d; chattr -i d
                attempt chattr +a p; attempt as 1 'chattr +d f'; chown 65534 f
                for flag in A i a j; do attempt as 1 "chattr +$flag f"; done; look; attempt chattr -p 7 f; look
                """),
        ConformanceCase(
            "Sticky directories, search and read permission",
            script: """
                mkdir -m 1777 sticky; touch sticky/f; as 1 'rm sticky/f; mv sticky/f sticky/g; mkdir sticky/m; mv sticky/m sticky/n'
                mkdir -m 711 search; mkdir -m 744 read; mkdir -m 700 none; touch {search,read,none}/f; ls -l read/f >/dev/null
                for d in search read none; do as 1 "ls $d; cat $d/f; touch $d/g; cd $d; stat -c %n $d/f"; done
                touch f; chmod 077 f; chown 65534 f; as 1 'cat f; chmod 644 f; cat f; chown 1 f'; chmod 000 f; cat f; show f
                touch -d @5 g; as 1 'touch g; touch -d @7 g'; chmod 666 g; as 1 'touch -d @7 g; touch g'; [ g -nt f ] && echo newer
                """),
        ConformanceCase(
            "Times before 1970 and after 2038",
            script: """
                touch f; ln -s f l
                for time in -1 -2147483648 -2147483653 0 2147483647 2147483648 4294967296 8589934592 15032385535 99999999999
                do
                    touch -d @$time.123456789 f 2>&1; stat -c '%x %y' f
                done
                touch -h -d @7 l; stat -c '%X %Y' l; touch -a -d @3 f; stat -c '%X' f; touch -m -d @4 f; stat -c '%X %Y' f
                [ $(stat -c %W f) -gt 1000000000 ] && echo born; mkdir d; [ $(stat -c %W d) -gt 1000000000 ] && echo born
                """),
        ConformanceCase(
            "Programs, setuid programs, devices, sockets and fifos do what they are for",
            script: """
                cp /bin/true /bin/id /bin/sleep .; ./true; echo $?; chown 1:1 id; chmod 6755 id; as 1 './id'
                printf '#!/bin/sh\\necho script $0\\n' >s; chmod 755 s; ./s; chmod 644 s; ./s 2>&1; as 1 ./s
                ./sleep 5 & sleep 0.2; (echo x >>sleep) 2>&1; truncate -s 1 sleep 2>&1; rm sleep; kill $!
                mknod null c 1 3; chmod 666 null; as 1 'echo x >null; cat null'; mknod block b 7 200; as 1 'mknod z c 1 3'
                mkfifo p; (cat p & echo through >p; wait); stat -c '%n %F %t %T' null block p; as 1 'mkfifo /dev/null/x'
                """),
        ConformanceCase(
            "git finds its files as it left them",
            script: """
                mkdir repo; cd repo; git init -q -b main .; git config user.name n; git config user.email e@example.org
                seq 10000 >a; for i in {1..50}; do echo $i >f$i; done; git add -A; git commit -qm one; seq 20000 >a
                git commit -qam two; git gc -q --prune=now; git fsck --strict 2>&1; git clone -q . ../clone; cd ../clone
                git fsck --strict 2>&1; git log --format=%s; git status --porcelain; sha256sum a f*; rm -r ../repo
                """),
    ]
}
