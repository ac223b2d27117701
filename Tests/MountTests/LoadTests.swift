import Foundation
import Glibc
import TestSupport
import Testing

extension MountTests {
    /// Everything at once, for a while: right to the end, and nothing piles up.
    @Suite struct Load {
        private static let seconds = Machine.isLong ? 600 : 20
        private static let coldFiles = Machine.isLong ? 20_000 : 1500

        /// A program that repeats `body` for `seconds`, and ends with an error when it does once.
        private func loop(_ mirror: Mirror, _ seconds: Int, _ body: String) throws -> Child {
            try Child(
                [
                    "bash", "-c",
                    "set -euo pipefail; end=$((SECONDS + $1)); source=$2; plain=$3; round=0\n"
                        + "while [ $SECONDS -lt $end ]; do round=$((round + 1))\n\(body)\ndone; echo \"$round rounds\"",
                    "bash", "\(seconds)", mirror.source, mirror.scratch.path + "/plain",
                ], in: mirror.mount)
        }

        /// What each of eight does: in its own directory and in its like on a plain one, and with files that all share.
        private static func mixed(_ worker: Int) -> String {
            """
            own=own\(worker)
            for tree in . "$plain"; do (
                cd $tree/$own
                # A pipeline has other random numbers each time: they are drawn before.
                RANDOM=$((round * 8 + \(worker)))
                for i in 1 2 3 4; do
                    name=f$((RANDOM % 20)); other=f$((RANDOM % 20)); place=$RANDOM
                    case $((RANDOM % 8)) in
                    0) head -c $((RANDOM * 9)) "$source/large/0" >$name ;;
                    1) echo "round $round" >>$name ;;
                    2) rm -f $name ;;
                    3) if [ -e $name ] && [ $name != $other ]; then mv $name $other; fi ;;
                    4) if [ -e $name ]; then truncate -s $((RANDOM * 3)) $name; fi ;;
                    5) if [ -e $name ]; then printf here | dd of=$name bs=1 seek=$place conv=notrunc status=none; fi ;;
                    6) mkdir -p d$((RANDOM % 5)); ln -f "$PWD"/f1 d1/hard 2>/dev/null || true ;;
                    7) cp --sparse=always -- $name copy 2>/dev/null || true ;;
                    esac
                done
            ); done
            cold=cold/$((RANDOM * 32768 + RANDOM)); cold=cold/$((${cold#cold/} % \(coldFiles)))
            cmp $cold "$source/$cold"
            skip=$((RANDOM % 500))
            cmp <(dd if=large/\(worker % 4) bs=10007 skip=$skip count=20 status=none) \\
                <(dd if="$source/large/\(worker % 4)" bs=10007 skip=$skip count=20 status=none)
            touch -a $cold; stat -c %s warm/$((RANDOM % 200)) >/dev/null; cmp warm/$((round % 200)) "$source/warm/$((round % 200))"
            """
        }

        private func everything(_ mirror: Mirror, seconds: Int) throws -> [String] {
            let fio = """
                rm -f fio.*; fio --name=fio --rw=randrw --bsrange=4k-64k --size=4m --numjobs=2 --verify=crc32c \\
                    --verify_fatal=1 --minimal >/dev/null
                """
            let compile = """
                cd lua; touch src/l$([ $((round % 2)) = 0 ] && echo vm || echo gc).c; make -s -C src posix MYCFLAGS=-O0 2>/dev/null
                [ "$(src/lua -e 'print(6 * 7)')" = 42 ]; cd ..
                """
            let find =
                "[ $(find cold warm -type f -printf '%s\\n' | wc -l) = \(Self.coldFiles + 200) ]; ls -lR warm >/dev/null"
            let all =
                try [fio, compile, find].map { try loop(mirror, seconds, $0) }
                + (0..<8).map { try loop(mirror, seconds, Self.mixed($0)) }
            return try all.map { child in
                let output = try child.wait(seconds: Double(seconds) + 240)
                #expect(output.code == 0, "\(output)\n\(mirror.log.suffix(2000))")
                return output.out.trimmingCharacters(in: .newlines)
            }
        }

        /// Resident bytes and descriptors of the daemon, when all has been put down.
        private func settled(_ mirror: Mirror) throws -> (memory: Int, descriptors: Int) {
            try mirror.settle()
            // Memory is given back when there was no work for a moment.
            usleep(1_500_000)
            let fields = try String(contentsOfFile: "/proc/\(mirror.pid)/statm", encoding: .utf8).split(separator: " ")
            return (Int(fields[1]).map { $0 * Int(getpagesize()) } ?? 0, try mirror.status().openDescriptors)
        }

        @Test("Under mixed load every byte is right, and the daemon's memory and descriptors stay what they were")
        func mixedLoad() throws {
            try withMirror(mounting: nil, limit: Double(Self.seconds) + 900) { mirror throws in
                for folder in ["cold", "warm", "large", "lua"] { mkdir(mirror.remote(folder), 0o755) }
                for index in 0..<Self.coldFiles {
                    try Pattern.write(mirror.remote("cold/\(index)"), size: 500 + index * 37 % 9000, seed: index)
                }
                for index in 0..<200 { try Pattern.write(mirror.remote("warm/\(index)"), size: 20_000, seed: index) }
                for index in 0..<4 { try Pattern.write(mirror.remote("large/\(index)"), size: 6 << 20, seed: index) }
                try shell("tar -C lua --strip-components=1 -xzf \"$1\"", in: mirror.source, [Programs.sourceOfLua()])
            } _: { mirror throws in
                try mirror.start(["--fill", "auto"], limit: Double(Self.seconds) + 900)
                let plain = mirror.scratch.path + "/plain"
                for tree in [plain, mirror.mount] {
                    try shell("mkdir -p \"$1\"/own{0..7}", [tree])
                }
                try shell(
                    "make -s -C lua/src posix MYCFLAGS=-O0; cat warm/* >/dev/null", in: mirror.mount, seconds: 300)
                _ = try everything(mirror, seconds: Self.seconds / 4)
                let before = try settled(mirror)
                let rounds = try everything(mirror, seconds: Self.seconds * 3 / 4)
                let after = try settled(mirror)
                let numbers =
                    "memory \(before.memory >> 10) to \(after.memory >> 10) KiB, "
                    + "descriptors \(before.descriptors) to \(after.descriptors); fio, compile, find, mixed: \(rounds)"
                print("load: \(numbers)")
                #expect(after.descriptors <= before.descriptors + 8, "\(numbers)")
                #expect(after.memory <= before.memory + 32 << 20, "\(numbers)")
                for worker in 0..<8 {
                    try shell("diff -r \"$1/own\(worker)\" own\(worker)", in: mirror.mount, [plain])
                }
                try shell(
                    "diff -r \"$1/cold\" cold; diff -r \"$1/warm\" warm", in: mirror.mount, [mirror.source],
                    seconds: 800)
                #expect(!mirror.log.contains(" error "), "\(mirror.log)")
            }
        }
    }
}
