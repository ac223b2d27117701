import Foundation
import Glibc
import HSMSystem
import TestSupport
import Testing

extension Scenario {
    static let failing: [Scenario] = [
        Scenario(name: "a remote that fails is EIO with its cause, and is asked again by the next reader") {
            mirror, _ throws in
            try mirror.fail(true)
            #expect(File.readError(mirror.at("a")) == EIO)
            try mirror.await("a", "an error") { $0.lastError?.contains("simulated remote fails") == true }
            try mirror.fail(false)
            #expect(try mirror.content("a") == Scenario.content(0))
            try mirror.await("a", "no error") { $0.state == "dual" && $0.flags.isEmpty }
        },
        Scenario(name: "a remote object that changed or vanished is EIO, and the file is stale or lost") {
            mirror, _ throws in
            try Pattern.write(mirror.remote("a"), size: 100, seed: 5)
            try shell("rm b", in: mirror.source)
            #expect(File.readError(mirror.at("a")) == EIO)
            #expect(File.readError(mirror.at("b")) == EIO)
            try mirror.await("a", "stale") { $0.flags.contains("stale") }
            try mirror.await("b", "lost") { $0.flags.contains("lost") }
            #expect(try mirror.content("c") == Scenario.content(2))
        },
        Scenario(name: "too few and too many bytes of the remote are never content") { mirror, _ throws in
            for how in ["short", "long"] {
                try Data().write(to: URL(fileURLWithPath: mirror.spoilPath(how)))
                #expect(File.readError(mirror.at("a")) == EIO, "\(how)")
                unlink(mirror.spoilPath(how))
            }
            #expect(try mirror.content("a") == Scenario.content(0))
        },
        Scenario(name: "a file that takes longer than the deadline, and comes, is had") { mirror, frontEnd throws in
            try mirror.stop()
            try mirror.start(frontEnd.arguments + ["--deadline", "3"], remote: "bandwidth=512K")
            #expect(try mirror.content("a") == Scenario.content(0))
            #expect(try mirror.status().counter("errors") == 0)
        },
        Scenario(name: "a fill of which nothing comes within the deadline is EIO", mounting: ["--deadline", "1"]) {
            mirror, _ throws in
            try mirror.hold()
            let begin = Clock.now
            #expect(File.readError(mirror.at("a")) == EIO)
            #expect((0.9...8).contains(Clock.now - begin))
            mirror.letGo()
            #expect(try mirror.content("a") == Scenario.content(0))
        },
        Scenario(name: "whoever waits for a fill can be killed") { mirror, _ throws in
            try mirror.hold()
            let reader = try Child(["cat", mirror.at("a")])
            try until("a wait") { try mirror.status().waiting >= 1 }
            reader.kill(SIGKILL)
            #expect(try reader.wait(seconds: 5).code == 128 + SIGKILL)
            mirror.letGo()
            #expect(try mirror.content("a") == Scenario.content(0))
        },
        Scenario(name: "unmounting fails what waits, and the next mount has it") { mirror, frontEnd throws in
            try mirror.hold()
            let reader = try Child(["cat", mirror.at("a")])
            try until("a wait") { try mirror.status().waiting >= 1 }
            try mirror.stop()
            let output = try reader.wait(seconds: 10)
            #expect(output.code == 1 && output.out.isEmpty && output.err.contains("Input/output error"))
            mirror.letGo()
            try mirror.start(frontEnd.arguments)
            #expect(try mirror.content("a") == Scenario.content(0))
        },
        Scenario(name: "a daemon that is told to end answers everybody who waits with EIO") { mirror, frontEnd throws in
            try mirror.hold()
            let readers = try (0..<30).map { try Child(["cat", mirror.at(["a", "b", "c"][$0 % 3])]) }
            // As FUSE sees them, some wait for each other's request in the kernel.
            try until("waits") { try mirror.status().waiting >= 3 }
            usleep(300_000)
            kill(mirror.pid, SIGTERM)
            for reader in readers {
                let output = try reader.wait(seconds: 10)
                #expect(output.code == 1 && output.out.isEmpty, "\(output)")
            }
            try mirror.awaitEnd()
            mirror.letGo()
            try startAgain(mirror, frontEnd)
            #expect(try mirror.content("a") == Scenario.content(0))
        },
        Scenario(name: "a mount that is used is not unmounted, but by force and by SIGTERM") {
            mirror, frontEnd throws in
            for how in ["force", "signal"] {
                var file: Descriptor? = try File.open(mirror.at("b"))
                let output = try passhsm("unmount", mirror.mount, seconds: 30)
                #expect(output.code == 1 && output.err.contains("busy"), "\(output)")
                if how == "force" {
                    let output = try passhsm("unmount", "--force", mirror.mount, seconds: 30)
                    #expect(output.code == 0, "\(output)")
                } else {
                    kill(mirror.pid, SIGTERM)
                }
                try mirror.awaitEnd()
                // What it had is right, or an error.
                if let bytes = try? file?.bytes(0..<Scenario.size + 1) { #expect(bytes == Scenario.content(1)) }
                file = nil
                try startAgain(mirror, frontEnd)
            }
        },
    ]

    /// The last guardian ends a moment after the last descriptor was closed.
    private static func startAgain(_ mirror: Mirror, _ frontEnd: FrontEnd) throws {
        try until("another mount", seconds: 30) { (try? mirror.start(frontEnd.arguments)) != nil }
    }
}
