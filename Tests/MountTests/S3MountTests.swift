import FaultServers
import Foundation
import Glibc
import HSMSystem
import TestSupport
import Testing

extension MountTests {
    /// A bucket as the remote tier: rclone's and moto's stores.
    @Suite struct S3Mount {
        private static let size = 5 << 20

        private static func fill(_ path: String) throws {
            for (index, size) in [0, 1, 65_535, 65_536, 65_537, 1 << 20, 1 << 20 + 1, size].enumerated() {
                try Pattern.write("\(path)/size-\(size)", size: size, seed: index)
            }
            // moto takes no backslash for what it is.
            try shell(
                """
                mkdir -p 'a b/c%20d' real; echo 1 > 'a b/c%20d/#?&;+"<>|=:@,$!*()[]{}^`'; echo 2 > "it's"; echo 4 > ~x
                echo 6 > 'a b/ä€😀'; echo 7 > 'lead and trail'; echo 8 > .hidden; echo 9 > -n; echo 10 > a-b; echo 11 > 'a!'
                { cd /usr; find include share/doc -type f -size -200k -print0 || true; } | head -z -n 400 \
                    | tar -C /usr --null -T - -cf - | tar -C real -xf -
                find . -exec touch -d @1700000000.25 {} +
                """, in: path)
        }

        /// - Parameter adapt: changes how the bucket is imported.
        private func withStore(
            _ kind: S3Server.Kind, _ mounting: [String]? = [], fill: (String) throws -> Void = Self.fill,
            adapt: (S3Server, Mirror) throws -> Void = { _, _ in },
            _ body: (S3Server, Mirror) throws -> Void
        ) throws {
            var server: S3Server?
            defer { server?.stop() }
            try withMirror(mounting: mounting) { mirror throws in
                try fill(mirror.source)
                let store = try S3Server(kind, root: mirror.scratch.path)
                server = store
                try store.fill(from: mirror.source)
                mirror.location = "s3://source"
                mirror.importArguments = store.importArguments
                mirror.environment = S3Server.environment
                try adapt(store, mirror)
            } _: { mirror throws in
                try body(try #require(server), mirror)
            }
        }

        @Test(
            "A cold mount of a bucket has its objects' names, sizes, times and digests",
            arguments: S3Server.Kind.allCases)
        func digests(kind: S3Server.Kind) throws {
            try withStore(kind) { _, mirror throws in
                // rclone's server tells whole seconds; what rclone copied has them all.
                let time = kind == .moto ? "%T@" : "%Ts"
                for question in [Trees.Question.digests.rawValue, "find . -type f -printf '%p %s \(time)\\n' | sort"] {
                    let answers = try [mirror.source, mirror.mount].map { try shell(question, in: $0) }
                    let lines = answers.map { Set($0.split(separator: "\n")) }
                    #expect(lines[0].count > 400)
                    let difference = lines[0].symmetricDifference(lines[1])
                    #expect(difference.isEmpty, "\(difference.sorted().prefix(6))")
                }
                #expect(try mirror.status().counter("errors") == 0)
                let shown = try shell(
                    "ps -ef; cat \"$1/log\"; \"$2\" status --json \"$1/lower\"; \"$2\" state --json \"$1/lower/size-1\"",
                    [mirror.scratch.path, Machine.program])
                try mirror.stop()
                let config = try shell("cat .passhsm/config; getfattr -d -m - .passhsm/tree/size-1", in: mirror.lower)
                // rclone's server is told its secret on its command line.
                let lines = (shown + config).split(separator: "\n").filter { !$0.contains("--auth-key") }
                #expect(!lines.contains { $0.contains("geheimnis") })
            }
        }

        @Test(
            "An object that is replaced or deleted is EIO where it is absent, told apart",
            arguments: [S3Server.Kind.rclone, .moto])
        func changed(kind: S3Server.Kind) throws {
            try withStore(kind, ["--fill", "read", "--offline", "error"]) { path in
                for name in ["replaced", "deleted"] { try Pattern.write("\(path)/\(name)", size: Self.size, seed: 1) }
            } _: { store, mirror throws in
                for name in ["replaced", "deleted"] { _ = try File.bytes(mirror.at(name), 0..<1000) }
                try Pattern.write(mirror.scratch.path + "/new", size: Self.size, seed: 2)
                try store.python(
                    """
                    s3.upload_file(a[0], 'source', 'replaced')
                    s3.delete_object(Bucket='source', Key='deleted')
                    """, [mirror.scratch.path + "/new"])
                for (name, flag) in [("replaced", "stale"), ("deleted", "lost")] {
                    try until("\(name)") { File.readError(mirror.at(name)) == EIO }
                    #expect(try mirror.state(name).flags.contains(flag), "\(mirror.log)")
                    #expect(try File.bytes(mirror.at(name), 0..<1000) == Pattern.bytes(0..<1000, seed: 1))
                }
                store.stop()
                #expect(File.readError(mirror.at("replaced")) == EIO)
                #expect(try !mirror.state("replaced").flags.contains("lost"))
            }
        }

        @Test("Multipart objects, checksums, metadata, markers, prefixes, and keys that are no paths")
        func objects() throws {
            try withStore(.moto, nil) { path in
                try Pattern.write("\(path)/plain", size: 100)
            } _: { store, mirror throws in
                try store.python(
                    """
                    big = b'x' * (6 << 20)
                    up = s3.create_multipart_upload(Bucket='source', Key='p/multi')['UploadId']
                    parts = [{'PartNumber': n, 'ETag': s3.upload_part(Bucket='source', Key='p/multi', UploadId=up,
                        PartNumber=n, Body=big)['ETag']} for n in (1, 2)]
                    s3.complete_multipart_upload(Bucket='source', Key='p/multi', UploadId=up, MultipartUpload={'Parts': parts})
                    s3.put_object(Bucket='source', Key='p/sum', Body=b'abc', ChecksumAlgorithm='SHA256')
                    s3.put_object(Bucket='source', Key='p/zip', Body=b'not gzip', ContentEncoding='gzip')
                    s3.put_object(Bucket='source', Key='p/s3fs', Body=b'abc', Metadata={'mtime': '981173106', 'mode': '33256',
                        'uid': '12', 'gid': '34'})
                    s3.put_object(Bucket='source', Key='p/rclone', Body=b'abc', Metadata={'mtime': '-1.5', 'mode': '0100600'})
                    for name, target in ('link', b' marked/in\\n'), ('pointless', b'\\n'), ('endless', b'x' * 4096):
                        s3.put_object(Bucket='source', Key='p/' + name, Body=target, Metadata={'mode': '41471'})
                    s3.put_object(Bucket='source', Key='p/marked/', Body=b'', Metadata={'mode': '16832', 'mtime': '5'})
                    s3.put_object(Bucket='source', Key='p/marked/in', Body=b'in')
                    s3.put_object(Bucket='source', Key='p/', Body=b'')
                    s3.put_object(Bucket='source', Key='px/elsewhere', Body=b'x')
                    for key in ('p//empty', 'p/./dot', 'p/a/../up', 'p/content/', 'p/plain', 'p/plain/below'):
                        s3.put_object(Bucket='source', Key=key, Body=b'x')
                    assert s3.list_objects_v2(Bucket='source')['IsTruncated']
                    for n in range(30): s3.put_object(Bucket='source', Key='p/many/%04d' % n, Body=b'%d' % n)
                    """)
                let arguments =
                    ["s3://source/p", mirror.lower, "--rebind", "--delete", "--max-delete", "100%"]
                    + mirror.importArguments
                let output = try run([Machine.program, "import"] + arguments, environment: S3Server.environment)
                #expect(output.code == 1, "five keys are no files, two symlinks no links: \(output)")
                for part in ["//empty", "/./dot", "a/../up", "content/", "plain/below"] {
                    #expect(
                        output.err.contains("cannot be a file")
                            && output.err.contains(part.split(separator: "/").last ?? ""))
                }
                #expect(output.out.contains("7 unreadable"), "\(output)")
                for name in ["pointless", "endless"] {
                    #expect(output.err.contains("unreadable: \(name): the symlink's target"))
                }
                try mirror.start(["--verify", "strict"])
                #expect(try File.bytes(mirror.at("sum")) == Array("abc".utf8), "it has a checksum")
                #expect(File.readError(mirror.at("zip")) == EIO, "it has none")
                try mirror.stop()
                try mirror.start()
                #expect(try File.bytes(mirror.at("zip")) == Array("not gzip".utf8))
                #expect(try File.bytes(mirror.at("multi")) == [UInt8](repeating: 0x78, count: 12 << 20))
                #expect(try mirror.state("multi").remoteVersion?.hasSuffix("-2\"") == true)
                let status = try File.stat(mirror.at("s3fs"))
                #expect(status.st_mtim.tv_sec == 981_173_106 && status.st_mode & 0o7777 == 0o750)
                #expect(status.st_uid == 12 && status.st_gid == 34)
                let other = try File.stat(mirror.at("rclone"))
                #expect(
                    other.st_mtim.tv_sec == -2 && other.st_mtim.tv_nsec == 500_000_000 && other.st_mode & 0o777 == 0o600
                )
                #expect(try shell("readlink link; cat link", in: mirror.mount) == "marked/in\nin")
                #expect(try File.stat(mirror.at("marked")).st_mode & 0o7777 == 0o700)
                #expect(try File.bytes(mirror.at("marked/in")) == Array("in".utf8))
                #expect(try shell("ls many | wc -l; cat many/0029; ls", in: mirror.mount).hasPrefix("30\n29"))
                #expect(try !shell("ls", in: mirror.mount).contains("elsewhere"))
            }
        }

        @Test(
            "Content that is not what its checksum says is EIO, whatever its ETag is",
            arguments: ["SHA256", "SHA1", "CRC64NVME", "CRC32C", "CRC32"])
        func checksums(kind: String) throws {
            var proxy: FaultProxy?
            defer { proxy?.stop() }
            try withStore(.moto, nil) { path in
                for name in ["right", "wrong"] { try Pattern.write("\(path)/\(name)", size: 300_000, seed: 1) }
            } _: { store, mirror throws in
                let between = try FaultProxy(to: store.port)
                proxy = between
                // Python has only one of the CRCs.
                try store.python(
                    """
                    import base64, hashlib, zlib
                    def crc(data, polynomial, count):
                        table = []
                        for n in range(256):
                            for _ in range(8): n = n >> 1 ^ (polynomial if n & 1 else 0)
                            table.append(n)
                        ones = (1 << 8 * count) - 1
                        sum = ones
                        for byte in data: sum = sum >> 8 ^ table[(sum ^ byte) & 255]
                        return (sum ^ ones).to_bytes(count, 'big')
                    sums = {
                        'SHA256': lambda data: hashlib.sha256(data).digest(),
                        'SHA1': lambda data: hashlib.sha1(data).digest(),
                        'CRC64NVME': lambda data: crc(data, 0x9a6c9329ac4bc9b5, 8),
                        'CRC32C': lambda data: crc(data, 0x82f63b78, 4),
                        'CRC32': lambda data: zlib.crc32(data).to_bytes(4, 'big'),
                    }
                    for path in a[1:]:
                        body = open(path, 'rb').read()
                        sum = sums[a[0]](body)
                        s3.put_object(Bucket='source', Key='p/' + os.path.basename(path), Body=body,
                            ChecksumAlgorithm=a[0], **{'Checksum' + a[0]: base64.b64encode(sum).decode()})
                    """, [kind, mirror.remote("right"), mirror.remote("wrong")])
                let arguments = [
                    "s3://source/p", mirror.lower, "--rebind", "--delete", "--max-delete", "100%", "--endpoint",
                    between.url,
                ]
                let output = try run([Machine.program, "import"] + arguments, environment: S3Server.environment)
                #expect(output.code == 0, "\(output)")
                try mirror.start()
                #expect(try File.sameContent(mirror.at("right"), mirror.remote("right")))
                between.spoil { $0.body[100_000] ^= 1 }
                #expect(File.readError(mirror.at("wrong")) == EIO)
                try until("the cause") { try mirror.state("wrong").lastError?.contains(kind.lowercased()) == true }
                between.spoil(nil)
                try until("the right content") { File.readError(mirror.at("wrong")) == 0 }
                #expect(try File.sameContent(mirror.at("wrong"), mirror.remote("wrong")))
            }
        }

        @Test("A bucket that is a host's name, behind a proxy of the environment")
        func virtualHost() throws {
            var proxy: FaultServer?
            defer { proxy?.stop() }
            try withStore(.moto) { path in
                for (index, name) in ["a b", "c"].enumerated() {
                    try Pattern.write("\(path)/\(name)", size: 300_000, seed: index)
                }
            } adapt: { store, mirror in
                let port = store.port
                let between = try FaultServer { _ in
                    var reply = FaultServer.Reply()
                    reply.tunnel = port
                    return reply
                }
                proxy = between
                // Names that moto knows buckets by; the proxy leads them to it.
                mirror.importArguments = ["--endpoint", "http://s3.amazonaws.com", "--style", "virtual"]
                mirror.environment["http_proxy"] = between.url
            } _: { _, mirror throws in
                for name in ["a b", "c"] {
                    #expect(try File.sameContent(mirror.at(name), mirror.remote(name)))
                }
                let hosts = Set((proxy?.requests ?? []).map(\.target))
                #expect(hosts == ["source.s3.amazonaws.com:80"])
            }
        }

        @Test(
            "Modes, owners and times are as rclone keeps them with --metadata; set-user-ID where it is trusted",
            arguments: [false, true])
        func metadata(isTrusted: Bool) throws {
            try withStore(.moto, nil) { path in
                try shell(
                    """
                    mkdir d; echo 1 >plain; echo 2 >d/program; chmod 640 plain; chmod 4755 d/program
                    chown 12:34 plain; touch -d @1700000000.123456789 plain
                    """, in: path)
            } adapt: { store, mirror in
                try store.fill(from: mirror.source, "--metadata", "--ignore-times")
                if isTrusted { mirror.importArguments += ["--trust-remote-rights"] }
            } _: { _, mirror throws in
                if !isTrusted { try shell("chmod u-s d/program", in: mirror.source) }
                try mirror.start()
                let question = "find . -type f -printf '%p %m %U %G %s %T@\\n' | sort"
                #expect(try shell(question, in: mirror.mount) == shell(question, in: mirror.source))
            }
        }

        @Test(
            "An endpoint and a region of the environment or a profile are recorded",
            arguments: ["environment", "profile"])
        func endpoint(kind: String) throws {
            try withStore(.moto, nil) { path in
                try shell("echo 1 >a; echo 2 >b", in: path)
            } adapt: { store, mirror in
                mirror.importArguments = []
                mirror.environment["AWS_REGION"] = ""
                let profile = "[default]\nendpoint_url = \(store.endpoint)\nregion = eu-west-3\n"
                try File.put(profile, mirror.scratch.path + "/profile")
                if kind == "profile" {
                    mirror.environment["AWS_CONFIG_FILE"] = mirror.scratch.path + "/profile"
                } else {
                    mirror.environment["AWS_ENDPOINT_URL"] = store.endpoint
                    mirror.environment["AWS_REGION"] = "eu-west-3"
                }
            } _: { store, mirror throws in
                mirror.environment = S3Server.environment
                try mirror.start(["--deadline", "5"])
                #expect(try File.bytes(mirror.at("a")) == Array("1\n".utf8))
                let source = try mirror.status().source
                #expect(source.contains("endpoint=") && source.contains("region=eu-west-3"), "\(source)")
                try mirror.stop()
                // The next import needs none either, and another endpoint is another source.
                try mirror.importSource()
                #expect(throws: Failure.self) { try mirror.importSource("--endpoint", "http://127.0.0.1:1") }
                mirror.environment["AWS_ENDPOINT_URL"] = "http://127.0.0.1:1"
                #expect(throws: Failure.self) { try mirror.importSource() }
                try mirror.start(["--deadline", "5"])
                #expect(
                    try File.bytes(mirror.at("b")) == Array("2\n".utf8), "the environment of a mount changes nothing")
            }
        }

        @Test("Roles sign the requests of imports and mounts", arguments: ["keys", "web identity"])
        func roles(kind: String) throws {
            var proxy: FaultProxy?
            defer { proxy?.stop() }
            try withStore(.moto, nil) { path in
                try Pattern.write("\(path)/file", size: 300_000, seed: 1)
            } adapt: { store, mirror in
                let between = try FaultProxy(to: store.port)
                proxy = between
                let folder = mirror.scratch.path
                let role = "arn:aws:iam::123456789012:role/reader"
                try File.put("token", folder + "/token")
                try File.put("[profile p]\nrole_arn=\(role)\ncredential_source=Environment\n", folder + "/config")
                mirror.importArguments = ["--endpoint", between.url] + (kind == "keys" ? ["--profile", "p"] : [])
                mirror.environment = [
                    "AWS_ENDPOINT_URL_STS": store.endpoint, "AWS_CONFIG_FILE": folder + "/config",
                    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
                ]
                let more =
                    kind == "keys"
                    ? S3Server.environment
                    : ["AWS_ROLE_ARN": role, "AWS_WEB_IDENTITY_TOKEN_FILE": folder + "/token"]
                mirror.environment.merge(more) { own, _ in own }
            } _: { _, mirror throws in
                let requests = { (proxy?.requests ?? []).map { $0.headers["authorization"] ?? "" } }
                let count = requests().count
                #expect(count > 0)
                try mirror.start()
                #expect(try File.sameContent(mirror.at("file"), mirror.remote("file")))
                #expect(requests().count > count)
                // Temporary keys have such names.
                #expect(requests().allSatisfy { $0.contains("Credential=ASIA") }, "\(requests())")
            }
        }

        @Test("A mount begins without its credentials, and has them as soon as they are there")
        func missingCredentials() throws {
            func profile(_ command: String, _ mirror: Mirror) throws {
                try File.put("[profile p]\ncredential_process = \(command)\n", mirror.scratch.path + "/config")
            }
            let keys = #"{"Version": 1, "AccessKeyId": "KEY", "SecretAccessKey": "geheimnis"}"#
            try withStore(.rclone, nil) { path in
                for name in ["present", "file"] { try Pattern.write("\(path)/\(name)", size: 1000, seed: 1) }
            } adapt: { _, mirror in
                mirror.importArguments += ["--profile", "p"]
                mirror.environment = ["AWS_CONFIG_FILE": mirror.scratch.path + "/config", "HOME": "/nonexistent"]
                try profile("printf '%s' '\(keys)'", mirror)
            } _: { _, mirror throws in
                try mirror.start()
                #expect(File.readError(mirror.at("present")) == 0)
                try mirror.stop()
                try profile("exit 1", mirror)
                try mirror.start()
                #expect(try File.sameContent(mirror.at("present"), mirror.remote("present")))
                #expect(File.readError(mirror.at("file")) == EPERM)
                try until("the cause") {
                    try mirror.state("file").lastError?.contains("credential_process gives no credentials") == true
                }
                try profile("printf '%s' '\(keys)'", mirror)
                try until("the content", seconds: 20) { File.readError(mirror.at("file")) == 0 }
                #expect(try File.sameContent(mirror.at("file"), mirror.remote("file")))
            }
        }

        @Test("Without the right secret nothing is had, and the cause is told without it")
        func refused() throws {
            try withStore(.rclone, nil) { path in
                try Pattern.write("\(path)/file", size: 100)
            } _: { _, mirror throws in
                var environment = S3Server.environment
                environment["AWS_SECRET_ACCESS_KEY"] = "falsch"
                let arguments = ["s3://source", mirror.lower + "2"] + mirror.importArguments
                let output = try run([Machine.program, "import"] + arguments, environment: environment)
                #expect(
                    output.code != 0 && output.err.contains("SignatureDoesNotMatch") && !output.err.contains("falsch"))
                mirror.environment = environment
                try mirror.start()
                #expect(File.readError(mirror.at("file")) == EPERM)
                try mirror.stop()
                mirror.environment = S3Server.environment
                try mirror.start()
                try shell("mv source elsewhere", in: mirror.scratch.path)
                #expect(File.readError(mirror.at("file")) == EIO)
                #expect(try mirror.state("file").flags == ["error"], "a bucket that is not there is no loss")
                try shell("mv elsewhere source", in: mirror.scratch.path)
                try mirror.stop()
                let none = try run(
                    [Machine.program, "import", "s3://nothere", mirror.lower + "3"] + mirror.importArguments,
                    environment: S3Server.environment)
                #expect(none.code != 0 && none.err.contains("NoSuchBucket"), "\(none)")
            }
        }
    }
}
