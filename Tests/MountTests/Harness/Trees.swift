import Foundation
import Glibc
import TestSupport

/// Trees to mirror, and how two of them are compared.
enum Trees {
    static let granule = 64 << 10
    /// Bytes that one request asks the remote for at most.
    static let fetchUnit = 1 << 20

    /// Every kind of file, with everything that a file has.
    static func special(_ path: String) throws {
        for (index, size) in [0, 1, granule - 1, granule, granule + 1, 3 * granule + 17, fetchUnit + 1].enumerated() {
            try Pattern.write("\(path)/size-\(size)", size: size, seed: index)
        }
        try shell(
            """
            mkdir -p deep/er/and/deeper empty
            cp size-65537 deep/er/file; cp size-1 deep/er/and/deeper/one
            ln size-65535 deep/hard; ln size-65535 deep/er/hard-too
            ln -s ../size-1 deep/link; ln -s /nonexistent/absolute dangling
            ln -s "$(printf 'x%.0s' {1..1000})" long-link
            mkfifo -m 640 fifo; mknod character c 1 3; mknod block b 7 200
            truncate -s 3M holes; printf middle | dd of=holes bs=1 seek=1500000 conv=notrunc status=none
            cp size-1 ' leading and trailing '; cp size-1 -- --help; cp size-1 $'new\\nline'; cp size-1 $'not\\xffutf8\\x80'
            cp size-1 "$(printf 'n%.0s' {1..255})"
            setfattr -n user.plain -v value size-1; setfattr -n user.binary -v 0x00ff00 size-65536
            setfattr -n user.dir -v d deep
            setfacl -m u:1234:rw-,g:4321:r-- size-65537; setfacl -d -m u:77:r-x deep
            chown 12345:54321 size-65536; chown -h 11:22 dangling; chmod 4755 size-65535; chmod 2770 deep
            chmod 1777 empty; chmod 000 size-0
            touch -h -d '1999-12-31 23:59:59.123456789' dangling; touch -d '1961-02-03 04:05:06.7' size-1
            touch -d '2100-01-01 00:00:00.000000001' size-196625; touch -d '2001-02-03 04:05:06.987654321' deep/er deep .
            """, in: path)
    }

    /// A name of every byte that may be in one.
    static func everyByte(_ path: String) throws {
        for byte in UInt8(1)...255 where byte != UInt8(ascii: "/") {
            let name = (Array((path + "/byte-").utf8) + [byte, 0]).map { CChar(bitPattern: $0) }
            let descriptor = open(name, O_WRONLY | O_CREAT, 0o644)
            guard descriptor >= 0 else { throw Failure("open: \(String(cString: strerror(errno)))") }
            var content = byte
            write(descriptor, &content, 1)
            close(descriptor)
        }
    }

    /// At least `count` real files of this machine, with what lies between them; the count.
    static func real(_ path: String, atLeast count: Int) throws -> Int {
        // Large ones are left out: 22,000 small files say more.
        try shell(
            """
            cd /usr
            { find include share lib -xdev \\( -type f -size -200k -o -type l \\) -print0 || true; } \
                | head -z -n "$(($2 + $2 / 5))" | tar --null -T - -cf - | tar -C "$1" -xf -
            """, [path, String(count)], seconds: 300)
        let found =
            Int(try shell("find . -type f | wc -l", in: path).trimmingCharacters(in: .whitespacesAndNewlines)) ?? 0
        guard found >= count else { throw Failure("this machine has only \(found) files to test with") }
        return found
    }

    // MARK: Comparison

    /// What each question to a tree answers; equal for equal trees.
    enum Question: String, CaseIterable {
        case digests = "find . -type f -print0 | sort -z | xargs -0 sha256sum"
        /// Without the sizes of directories and what is allocated, which are the lower file system's own.
        case listing = """
            ls -lAR --time-style=full-iso --block-size=1 | sed -E '/^total /d; s/^(d[^ ]+ +)[0-9]+( +[^ ]+ +[^ ]+ +)[0-9]+/\\1\\2/'
            """
        case metadata = """
            find . -type d -printf '%p d %m %U %G %T@\\n' -o -printf '%p %y %m %U %G %s %n %T@ %l\\n' | sort
            """
        case attributes = "find . -print0 | sort -z | xargs -0 getfattr -h -d -m - -- 2>&1"
        case archive =
            "tar --sort=name --pax-option=delete=atime,delete=ctime --xattrs --xattrs-include='*' --acls -cf - . | sha256sum"
        case sparseArchive = """
            out=$(mktemp -d); tar -S -cf - . | tar -C "$out" -xf -
            (cd "$out"; find . -type f -print0 | sort -z | xargs -0 sha256sum); rm -rf "$out"
            """
        case sparseCopy = """
            out=$(mktemp -d); cp -a --sparse=always . "$out/copy"
            (cd "$out/copy"; find . -type f -print0 | sort -z | xargs -0 sha256sum); rm -rf "$out"
            """
    }

    /// The first lines in which the answers of two trees differ; nil when they are equal.
    static func difference(_ left: String, _ right: String, _ question: Question) throws -> String? {
        let answers = try [left, right].map { try shell(question.rawValue, in: $0, seconds: 600) }
        if answers[0] == answers[1] { return answers[0].isEmpty ? "no answer at all" : nil }
        let lines = answers.map { Set($0.split(separator: "\n")) }
        let differing =
            (lines[0].subtracting(lines[1]).sorted().prefix(5).map { "- \($0)" })
            + (lines[1].subtracting(lines[0]).sorted().prefix(5).map { "+ \($0)" })
        return differing.joined(separator: "\n")
    }

    /// Notes a digest of the file as cshatag does, of its content or of another.
    static func noteDigest(_ path: String, isRight: Bool) throws {
        let script = """
            digest=$(sha256sum <"$1" | cut -c 1-64)
            [ "$2" = true ] || digest=$(tr 0-9a-f 1-9a-f0 <<<$digest)
            setfattr -n user.shatag.sha256 -v $digest "$1"
            setfattr -n user.shatag.ts -v $(stat -c %.9Y "$1") "$1"
            """
        try shell(script, [path, "\(isRight)"])
    }
}
