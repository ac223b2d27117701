import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests.Programs {
    @Test(
        "SQLite in WAL mode: what was committed before a SIGKILL is there, and the database is whole",
        arguments: [[], ["--no-passthrough"]])
    func sqlite(arguments: [String]) throws {
        let (rounds, rowsOfBatch) = (5, 20)
        try withMirror(mounting: arguments) { mirror throws in
            try shell(
                """
                sqlite3 db 'pragma journal_mode=wal; create table t(id integer primary key, batch, payload);
                    with recursive n(i) as (select 1 union all select i + 1 from n where i < 3000)
                    insert into t(batch, payload) select 0, randomblob(1000) from n' >/dev/null
                """, in: mirror.source)
        } _: { mirror throws in
            func ask(_ query: String) throws -> String {
                try shell("sqlite3 db \"$1\"", in: mirror.mount, [query]).trimmingCharacters(in: .newlines)
            }
            #expect(try mirror.state("db").state == "offline")
            for round in 1...rounds {
                // The last line that it wrote tells of a commit that had returned.
                let writer = try Child(
                    [
                        "bash", "-c",
                        """
                        exec stdbuf -oL sqlite3 db < <(
                            for ((i = 0; ; i++)); do
                                echo "begin;"
                                for ((j = 0; j < \(rowsOfBatch); j++)); do
                                    echo "insert into t(batch, payload) values($(( \(round) * 1000000 + i )), randomblob(2000));"
                                done
                                echo "commit; select $(( \(round) * 1000000 + i ));"
                            done)
                        """,
                    ], in: mirror.mount)
                try until("commits") { writer.outputSoFar.split(separator: "\n").count > 10 + round * 7 }
                writer.kill(SIGKILL)
                let output = try writer.wait(seconds: 10)
                #expect(output.code == 128 + SIGKILL, "\(output)")
                let committed = output.out.split(separator: "\n").count
                #expect(try ask("pragma integrity_check") == "ok")
                let batches = "from t where batch >= \(round) * 1000000"
                let found = Int(try ask("select count(distinct batch) \(batches)")) ?? -1
                // One more may have been committed, and not told.
                #expect(committed...committed + 1 ~= found, "round \(round)")
                let broken = "select count(*) from (select batch \(batches) group by batch having count(*) <> "
                #expect(try ask(broken + "\(rowsOfBatch))") == "0", "no transaction is there in part")
            }
            #expect(try ask("select count(*), min(length(payload)) from t where batch = 0") == "3000|1000")
            try mirror.stop()
            #expect(try shell("sqlite3 db 'pragma integrity_check'", in: mirror.tree) == "ok\n")
        }
    }

    @Test("PostgreSQL recovers from an immediate stop, on new files and on cold ones", arguments: [false, true])
    func postgres(isCold: Bool) throws {
        let prelude = """
            bin=$(ls -d /usr/lib/postgresql/*/bin | tail -1); data=$PWD/pg/data; export PGHOST=$PWD/pg
            as() { setpriv --reuid=postgres --regid=postgres --init-groups env HOME="$PWD/pg" "$bin/$@"; }
            start() { as pg_ctl -D "$data" -l "$PWD/pg/log" -o "-c listen_addresses= -k $PWD/pg" -w start >/dev/null; }
            stop() { as pg_ctl -D "$data" -w -m "$1" stop >/dev/null; }

            """
        let make = """
            mkdir pg; chown postgres: pg; chmod 700 pg
            as initdb -A trust -E UTF8 --no-sync -D "$data" >/dev/null; start
            as pgbench -i -s 1 -q postgres 2>/dev/null; as psql -qc 'create extension amcheck' postgres

            """
        try withMirror { mirror throws in
            if isCold { try shell(prelude + make + "stop fast; rm -f pg/.s.*", in: mirror.source) }
        } _: { mirror throws in
            // A server that a failed test left would keep the mount busy.
            defer { _ = try? run(["bash", "-c", prelude + "stop immediate 2>/dev/null"], in: mirror.mount) }
            try shell(
                prelude + (isCold ? "start\n" : make) + """
                    as pgbench -n -c 4 -j 2 -T 3 postgres >pg.out
                    done=$(sed -n 's/^number of transactions actually processed: //p' pg.out)
                    stop immediate; start
                    as pg_amcheck --heapallindexed --parent-check -d postgres
                    as psql -Atc 'select count(*) from pgbench_history' postgres | grep -qx "$done"
                    as psql -Atc 'select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history)' \
                        postgres | grep -qx t
                    as psql -qc 'vacuum full' postgres; as pg_amcheck --heapallindexed --parent-check -d postgres
                    stop fast
                    """, in: mirror.mount)
        }
    }

    enum Image: CaseIterable { case new, complete, offline }

    @Test("A loop image on the mount is a file system that survives fsck", arguments: Image.allCases)
    func loopImage(image: Image) throws {
        try withMirror(mounting: ["--fill", "read"]) { mirror throws in
            try shell("truncate -s 24M image; mkfs.ext4 -q -d /etc/init.d image", in: mirror.source)
        } _: { mirror throws in
            let name = image == .new ? "new" : "image"
            switch image {
            case .new: try shell("truncate -s 24M new; mkfs.ext4 -q -d /etc/init.d new", in: mirror.mount)
            case .complete: try shell("cat image >/dev/null", in: mirror.mount)
            case .offline: #expect(try mirror.state("image").state == "offline")
            }
            // `mount -o loop`: the device goes with the mount, whoever unmounts it.
            try shell(
                """
                dir=$1/loop; mkdir "$dir"
                for round in 1 2 3; do
                    mount -o loop "$2" "$dir"
                    diff -r /etc/init.d "$dir" | grep -v '^Only in' && exit 1
                    cp -r /usr/include/linux "$dir/round$round"; rm -rf "$dir/round$((round - 1))/"*
                    sync -f "$dir"; fsfreeze -f "$dir"; fsfreeze -u "$dir"
                    diff -r /usr/include/linux "$dir/round$round"
                    umount "$dir"; e2fsck -fn "$2" >&2
                done
                """, in: mirror.mount, [mirror.scratch.path, name])
            if image == .offline { #expect(try mirror.state("image").flags.contains("dirty")) }
            try mirror.stop()
            if image != .offline { try shell("e2fsck -fn \"$1\" >&2", in: mirror.tree, [name]) }
            try mirror.start(["--fill", "read"])
            try shell("e2fsck -fn \"$1\" >&2", in: mirror.mount, [name])
        }
    }
}
