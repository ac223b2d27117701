import FaultServers
import Foundation
import Glibc
import HSMSystem
import Synchronization
import Testing

extension MountTests {
    /// Buckets with more keys than anybody wants in memory.
    @Suite struct S3Scale {
        private static let page = 1000
        private static let perDirectory = 500

        /// A bucket of so many keys, in directories; each page is made when it is asked for.
        private static func bucket(_ count: Int) -> @Sendable (FaultServer.Request) -> FaultServer.Reply {
            { request in
                let items = request.target.split(separator: "?").last?.split(separator: "&") ?? []
                let token = items.first { $0.hasPrefix("continuation-token=") }?.split(separator: "=").last
                let start = token.flatMap { Int($0) } ?? 0
                let end = min(start + Self.page, count)
                let next = end < count ? "<NextContinuationToken>\(end)</NextContinuationToken>" : ""
                var text = """
                    <?xml version="1.0"?><ListBucketResult><IsTruncated>\(end < count)</IsTruncated>\(next)
                    """
                for index in start..<end {
                    text += """
                        <Contents><Key>\(Self.key(index))</Key><LastModified>2024-05-06T07:08:09.000Z</LastModified>\
                        <ETag>&quot;\(index)&quot;</ETag><Size>\(index % 1000)</Size></Contents>
                        """
                }
                return FaultServer.Reply(body: Array((text + "</ListBucketResult>").utf8))
            }
        }

        private static func key(_ index: Int) -> String {
            func digits(_ number: Int) -> String { String(String(number + 10_000_000).dropFirst()) }
            return "d\(digits(index / perDirectory))/file-with-a-name-\(digits(index))"
        }

        /// Imports a bucket of so many keys: the program's greatest resident memory in KiB.
        private func importBucket(_ count: Int, _ scratch: Scratch) throws -> Int {
            let server = try FaultServer(Self.bucket(count))
            defer { server.stop() }
            let lower = "\(scratch.path)/lower-\(count)"
            let measure = """
                import resource, subprocess, sys
                code = subprocess.call(sys.argv[1:])
                print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
                sys.exit(code)
                """
            let begin = Clock.now
            let output = try run(
                [
                    "python3", "-c", measure, Machine.program, "import", "--quiet", "--no-metadata", "--endpoint",
                    server.url, "s3://bucket", lower,
                ], environment: S3Server.environment, seconds: 3000)
            guard output.code == 0, let memory = Int(output.out.split(separator: "\n").last ?? "") else {
                throw Failure("\(output)")
            }
            print("\(count) keys: \(Clock.now - begin) s, \(memory) KiB")
            #expect(server.requests.count == (count + Self.page - 1) / Self.page)
            let tree = lower + "/.passhsm/tree"
            let files = try shell("find . -type f -printf x | wc -c", in: tree)
            #expect(files.split(separator: "\n").first == "\(count)")
            for index in [0, count / 2, count - 1] {
                #expect(try File.stat("\(tree)/\(Self.key(index))").st_size == index % 1000)
            }
            return memory
        }

        @Test("A bucket is imported page by page: ten times as many keys take little more memory")
        func memory() throws {
            try withScratch { scratch in
                let count = Machine.isLong ? 1_000_000 : 20_000
                let few = try importBucket(count / 10, scratch)
                let many = try importBucket(count, scratch)
                // The list of imported names takes 24 bytes a key, and twice that while it grows. The listing alone would
                // take 200, as XML.
                #expect(many - few < max(2 << 10, count / 10 * 9 * 60 / 1024), "\(few) and \(many) KiB")
            }
        }
    }
}
