import Glibc
import Testing

/// A script or a series of calls, whose output tells everything that it saw.
struct ConformanceCase: Sendable, CustomTestStringConvertible {
    let name: String
    let perform: @Sendable (_ directory: String) throws -> String

    var testDescription: String { name }

    /// A bash script in an empty directory. `as GROUPS SCRIPT` runs one as nobody, with supplementary groups.
    init(_ name: String, script: String) {
        self.name = name
        perform = { directory in
            let prelude = """
                umask 022
                as() { setpriv --reuid=65534 --regid=65534 --groups="$1" bash -c "$2" 2>&1; }
                show() { stat -c '%n %A %h %u %g %s' "$@" 2>&1 | sed -E 's/^([^ ]+ d.* )[0-9]+$/\\1-/'; }

                """
            let output = try run(["bash", "-c", prelude + script], in: directory, seconds: 120)
            return "\(output.code)\n\(output.out)\(output.err)"
        }
    }

    /// Calls, each with its result or errno.
    init(_ name: String, calls: @escaping @Sendable (inout CallLog) throws -> Void) {
        self.name = name
        perform = { directory in
            var log = CallLog(directory: directory)
            try calls(&log)
            return log.lines.joined(separator: "\n")
        }
    }
}

extension MountTests {
    /// Each case runs on the bare lower directory and on the mount: result, errno and stat have to be the same.
    @Suite struct Conformance {
        @Test(
            "The mount answers as the lower directory does, whether the kernel reads files by itself or asks",
            arguments: ConformanceCase.scripts + ConformanceCase.calls + ConformanceCase.locks,
            [[], ["--no-passthrough"]])
        func sameAsLower(conformance: ConformanceCase, arguments: [String]) throws {
            try withMirror(apart: true, mounting: arguments) { mirror throws in
                try File.put("content", mirror.remote("known"))
            } _: { mirror throws in
                // Beside the mirror, on the same file system.
                let bare = mirror.scratch.path + "/bare"
                let outputs = try [bare, mirror.at("case")].map { directory in
                    mkdir(directory, 0o755)
                    chmod(directory, 0o777)
                    chmod(mirror.scratch.path, 0o755)
                    return try conformance.perform(directory).replacing(directory, with: "")
                }
                let (expected, got) = (outputs[0].split(separator: "\n"), outputs[1].split(separator: "\n"))
                #expect(got == expected, "\(conformance.name)")
                #expect(!expected.isEmpty)
            }
        }
    }
}
